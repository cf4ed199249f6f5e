"""A shop's own project: its Celery application, its tasks, its web application."""
