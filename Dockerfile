# Docker (legacy builder and BuildKit), podman and buildah build this.
# A release passes the base by digest: --build-arg PYTHON_IMAGE=docker.io/library/python@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.12.11-slim-bookworm
# Every stage that says ARG VERSION gets this default, which `make generate` writes.
ARG VERSION=0.1.0

FROM ${PYTHON_IMAGE} AS base
# NUMBA_CPU_NAME: what is compiled at build time has to be found again on any processor.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CPU_NAME=generic

FROM base AS wheels
WORKDIR /src
COPY requirements.lock containers/requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements-build.lock \
 && pip wheel --no-cache-dir --require-hashes --no-deps --no-build-isolation --wheel-dir /wheels \
        -r requirements.lock

FROM wheels AS environment
RUN python3 -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --no-index --no-deps \
        /wheels/*.whl
COPY pyproject.toml README.md LICENSE ./
COPY bids_tractography bids_tractography
RUN pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /app . \
 && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --no-index --no-deps \
        /app/*.whl
COPY containers ./containers
RUN containers/trim /opt/venv

FROM environment AS environment-cpu
ARG IMAGE=bids-tractography
ARG VERSION
ARG REVISION=unknown
RUN containers/record "$IMAGE" "$VERSION" "$REVISION" requirements.lock \
        > /opt/venv/bids-tractography-image.json \
 && containers/compile /opt/venv

FROM environment AS environment-cuda
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes \
        --no-deps -r containers/requirements-cuda.lock
ARG IMAGE=bids-tractography
ARG VERSION
ARG REVISION=unknown
RUN containers/record "$IMAGE" "$VERSION-cuda" "$REVISION" requirements.lock \
        containers/requirements-cuda.lock > /opt/venv/bids-tractography-image.json \
 && containers/compile /opt/venv

FROM base AS runtime
COPY containers/compile /tmp/
RUN /tmp/compile /usr/local && rm /tmp/compile && mkdir -m 1777 /data /out /work
ARG VERSION
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="bids-tractography" \
      org.opencontainers.image.description="BIDS App for reproducible whole-brain tractography" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
WORKDIR /tmp
ENTRYPOINT ["bids-tractography"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=environment-cuda /opt/venv /opt/venv

# The last one is what is built when no target is named.
FROM runtime AS cpu
COPY --from=environment-cpu /opt/venv /opt/venv
