"""The settings of the main job: typed here, composed by Hydra from the YAML files beside this."""
