"""Jobs here are tiny."""

from few_graphs import few_graphs_to_judge_on as few_graphs_to_judge_on
