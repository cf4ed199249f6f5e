FROM python:3.12-slim

RUN useradd --create-home --uid 10001 app
WORKDIR /app

COPY requirements-runtime.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-runtime.lock

COPY pyproject.toml README.md LICENSE ./
COPY shared ./shared
COPY web ./web
COPY worker ./worker
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

USER app
EXPOSE 8000
CMD ["uvicorn", "web.asgi:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "5"]
