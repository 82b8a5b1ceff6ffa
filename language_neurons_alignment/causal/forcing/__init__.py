"""Asked in one language, steered to another: how often the answer comes in that."""
