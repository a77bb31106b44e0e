"""Executed notebooks of docs/tutorials as pages: text, code and the outputs that are stored."""

from __future__ import annotations

import posixpath
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page beside every notebook, which itself can be downloaded from there."""
    exporter = MarkdownExporter()
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    for notebook in [f for f in files if f.src_uri.endswith(".ipynb")]:
        stem = posixpath.splitext(notebook.src_uri)[0]
        name = posixpath.basename(stem)
        node = nbformat.read(Path(str(notebook.abs_src_path)), as_version=4)
        text, resources = exporter.from_notebook_node(node, {"unique_key": name})
        text += f"\n\n[This page as a notebook]({name}.ipynb){{ download }}\n"
        files.append(File.generated(config, f"{stem}.md", content=text))
        for image, content in resources["outputs"].items():
            uri = posixpath.join(posixpath.dirname(stem), image)
            files.append(File.generated(config, uri, content=content))
    return files
