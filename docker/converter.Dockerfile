# The converter: torch (CPU), onnx and the rest, for people who do not want them installed.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# A folder with a torch wheel may stand in for the download:
#   docker build --build-context wheels=FOLDER -f docker/converter.Dockerfile .
FROM scratch AS wheels

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt ./
COPY requirements requirements
RUN --mount=type=bind,from=wheels,target=/wheels \
    PIP_FIND_LINKS=/wheels pip install --no-deps --retries 2 -r requirements/torch.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY foldserve foldserve
COPY service service
COPY converter converter
RUN pip install -c constraints.txt '.[converter]' && pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 HOME=/tmp
USER 10001:10001
WORKDIR /work
# Not `python -m`: that would look for packages in /work first, which is the user's.
ENTRYPOINT ["foldserve"]
