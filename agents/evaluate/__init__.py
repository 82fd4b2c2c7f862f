"""The evaluation protocol: whole games by an agent or at random, scored and filmed."""

from agents.evaluate.evaluation import Evaluation, evaluate_agent, film_agent
from agents.evaluate.random_agent import random_returns

__all__ = ["Evaluation", "evaluate_agent", "film_agent", "random_returns"]
