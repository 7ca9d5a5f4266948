"Published hyper-parameters as data. The module `recipes.apply` adds `learn.apply_recipe`"
from .published import recipes
from .recipe import Recipe, Step

__all__ = ['recipes', 'Recipe', 'Step']
