# syntax=docker/dockerfile:1
# GPT-2 for Discord on a CPU. docs/hosting.md explains how to build and run it; compose.yaml runs it without privileges.

FROM python:3.13-slim-bookworm AS build

# PyTorch's index of CPU builds. Empty takes PyPI's build, which includes CUDA and is several gigabytes larger.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /venv
ENV PATH="/venv/bin:$PATH"
WORKDIR /source

# pip checks everything but PyTorch against its hash. PyTorch's builds differ, so only its version is pinned.
COPY requirements.txt constraints.txt ./
RUN pip install --require-hashes --requirement requirements.txt \
    && pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

COPY pyproject.toml setup.py README.md LICENSE ./
COPY bot bot
COPY cogs cogs
RUN pip install --no-deps --no-build-isolation --no-index . \
    && python -m compileall -q /venv

FROM python:3.13-slim-bookworm

COPY --from=build /venv /venv
COPY --chmod=755 deploy/entrypoint.sh /usr/local/bin/gpt2-for-discord

# Downloads, pictures and the journal; everything else can be read-only.
RUN install --directory --owner=nobody --group=nogroup --mode=700 /data
VOLUME /data
WORKDIR /data

ENV PATH="/venv/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    GPT2_CACHE=/data/models \
    JOURNAL=/data/journal.sqlite3 \
    MPLCONFIGDIR=/tmp/matplotlib

# nobody and nogroup, as numbers, so that Kubernetes can verify that the image does not run as root.
USER 65534:65534

# Liveness, not readiness: a restart does not help a bot that waits for Discord.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "bot", "health"]

ENTRYPOINT ["gpt2-for-discord"]
CMD ["run"]
