"""Films of whole games: the camera, the MP4 writer, and pictures side by side."""

from envs.films.camera import FilmResult, film_episode
from envs.films.filmstrip import film_strip

__all__ = ["FilmResult", "film_episode", "film_strip"]
