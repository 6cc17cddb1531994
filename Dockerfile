# One image for all three services of docker-compose.yml: the platform with MLflow and the dashboard.
# constraints.txt holds the versions that the tests ran with, on this Python.
FROM python:3.11-slim-bookworm

# PyTorch's CPU build, a tenth of the size. For an NVIDIA GPU build with an empty one (docs/docker.md).
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    MLFLOW_DISABLE_TELEMETRY=true

# The packages first: their layer stays when only the sources change.
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Optional parts, with commas: ray,postgres (docs/scaling.md).
ARG EXTRAS=""
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *sum((p['optional-dependencies'][e] for e in '${EXTRAS}'.split(',') if e), []), sep='\n')" > dependencies.txt \
    && pip install -c constraints.txt -r dependencies.txt
COPY README.md ./
COPY platform platform
COPY models models
COPY studies studies
RUN pip install --no-deps .

# Nothing runs as root. A new volume takes over the owner of the folder that it is mounted on.
RUN groupadd --gid 10001 mtl \
    && useradd --uid 10001 --gid 10001 --create-home mtl \
    && install -d -o mtl -g mtl /data/home /data/mlflow
USER 10001:10001
WORKDIR /data/home
ENV MTL_HOME=/data/home

CMD ["mtl", "--help"]
