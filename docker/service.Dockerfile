# The service: onnxruntime and an HTTP server, without torch or onnx.
# EXTRAS=s3,images installs what those extras need. VARIANT=gpu installs onnxruntime's CUDA build
# and the CUDA and cuDNN libraries that it needs.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG VARIANT=cpu
ARG EXTRAS=
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY foldserve foldserve
COPY service service
RUN pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" && \
    if [ "$VARIANT" = gpu ]; then \
      pip install -c constraints.txt '.[gpu]' && \
      pip uninstall --yes onnxruntime && \
      pip install -c constraints.txt --force-reinstall --no-deps onnxruntime-gpu; \
    fi && \
    pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 \
    FOLDSERVE_HOST=0.0.0.0 FOLDSERVE_MODELS=/models
USER 10001:10001
WORKDIR /models
EXPOSE 8000
# Healthy means ready: a model is loaded and self-tested, not merely that a process runs.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, ssl, urllib.request as u; tls = os.environ.get('FOLDSERVE_TLS_CERTIFICATE'); u.urlopen(('https' if tls else 'http') + '://127.0.0.1:' + os.environ.get('FOLDSERVE_PORT', '8000') + '/health/ready', timeout=2, context=ssl._create_unverified_context() if tls else None)"]
ENTRYPOINT ["foldserve", "serve"]
