# syntax=docker/dockerfile:1
# GPT-2 for Discord on a CPU. docs/hosting.md says how it is built and run; compose.yaml runs it without any rights.

FROM python:3.13-slim-bookworm AS build

# PyTorch's index of CPU builds, which its page "Get started" on pytorch.org names. Without it, an image for x86-64 holds
# CUDA and is several gigabytes larger; on ARM the default is a CPU build.
ARG TORCH_INDEX=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /venv
ENV PATH="/venv/bin:$PATH"
WORKDIR /source

# Everything but PyTorch is checked against its hash. PyTorch differs between CPU and CUDA, so its version alone is fixed.
COPY requirements.txt constraints.txt ./
RUN pip install --require-hashes --requirement requirements.txt \
    && pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

COPY pyproject.toml README.md LICENSE ./
COPY bot bot
COPY cogs cogs
RUN pip install --no-deps --no-build-isolation --no-index . \
    && python -m compileall -q /venv

FROM python:3.13-slim-bookworm

COPY --from=build /venv /venv
COPY --chmod=755 deploy/entrypoint.sh /usr/local/bin/gpt2-for-discord

# Downloads, pictures and requests that are not answered yet; everything else can be read-only.
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

# nobody and nogroup, as numbers: whoever runs the image can then see that it is not root.
USER 65534:65534

# Whether it lives, not whether it is ready: a bot that waits for Discord to come back is not mended by a restart.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "bot", "health"]

ENTRYPOINT ["gpt2-for-discord"]
CMD ["run"]
