"""What a model is: groups of units, masks, surgery, checkpoints, costs."""
