"""The built-in chat: a question in, an answer from the user's own sources out.

What answers is one function, which a team replaces by a model's: see `worker/chat/question.py`.
"""

from worker.chat.question import Event, Passage, Piece, Question

__all__ = ["Event", "Passage", "Piece", "Question"]
