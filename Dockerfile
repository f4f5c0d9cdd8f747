# The image of `mesh`: sidecar, certificate authority and tools, one program. docs/image.md tells how to build and run it.
# The syntax is that of the classic builder, so docker 20.10, docker with BuildKit, buildah and podman all read it.
#
#   docker build -t mesh:0.1.0 .
#
# The same sources and the same base give the same image, byte for byte (buildah build --timestamp 0). Nothing is taken
# from the network but the locked files, each checked by its hash; none at all where deploy/image/wheels holds them.
# Any base with Python 3.11 or newer and its venv will do.
ARG BASE=python:3.11-slim-bookworm

# ---- everything that is only needed to build ------------------------------------------------------------------------
FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 SOURCE_DATE_EPOCH=315532800
WORKDIR /build
# tools: pip and setuptools, left behind; /opt/mesh: what is shipped, without either
RUN ["python3", "-m", "venv", "/build/tools"]
RUN ["python3", "-m", "venv", "--without-pip", "/opt/mesh"]
COPY requirements.lock deploy/image/build.lock /build/
COPY deploy/image/wheels /build/wheels
RUN set -eu; \
    offline=""; \
    if ls wheels/*.whl >/dev/null 2>&1; then offline="--no-index --find-links /build/wheels"; fi; \
    tools/bin/pip install -q --no-compile --no-deps --require-hashes --only-binary :all: $offline -r build.lock; \
    tools/bin/pip --python /opt/mesh/bin/python install -q --no-compile --no-deps --require-hashes --only-binary :all: $offline \
        -r requirements.lock
COPY pyproject.toml README.md LICENSE src/
COPY certs src/certs
COPY ca src/ca
COPY sidecar src/sidecar
RUN set -eu; \
    tools/bin/pip wheel -q --no-deps --no-index --no-build-isolation -w dist ./src; \
    tools/bin/pip --python /opt/mesh/bin/python install -q --no-compile --no-deps --no-index --find-links dist mesh; \
    rm -f /opt/mesh/bin/activate* /opt/mesh/bin/Activate*; \
    mkdir -p /opt/mesh/share; \
    cp src/LICENSE requirements.lock /opt/mesh/share/
COPY deploy/image/precompile.py /build/
RUN ["python3", "precompile.py", "/opt/mesh/lib"]

# ---- what is shipped ------------------------------------------------------------------------------------------------
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE
LABEL org.opencontainers.image.title="mesh" \
      org.opencontainers.image.description="Zero trust for every hop, in one small sidecar" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      sidecar.mesh/sbom="/opt/mesh/share/sbom.cdx.json"
COPY --from=build /opt/mesh /opt/mesh
COPY deploy/image/precompile.py /opt/mesh/share/
# nft is for `mesh redirect`. Slim images come without the bytecode of Python's own modules; who may not write would
# compile them at each start. The user's number is the one that redirect rules leave alone (sidecar/deploy/names.py).
RUN set -eu; \
    if ! command -v nft >/dev/null; then \
        apt-get -qq update; \
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nftables >/dev/null; \
        rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/cache/debconf/* /var/log/*; \
    fi; \
    export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1; \
    python3 /opt/mesh/share/precompile.py; \
    rm /opt/mesh/share/precompile.py; \
    /opt/mesh/bin/python -m sidecar.deploy.sbom --lock /opt/mesh/share/requirements.lock >/opt/mesh/share/sbom.cdx.json; \
    echo 'mesh:x:17000:17000::/var/lib/mesh:/usr/sbin/nologin' >>/etc/passwd; \
    echo 'mesh:x:17000:' >>/etc/group; \
    install -d -m 0755 /etc/mesh; \
    install -d -o 17000 -g 17000 -m 0700 /var/lib/mesh /run/mesh
ENV PATH=/opt/mesh/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/var/lib/mesh \
    MESH_STATE_DIR=/var/lib/mesh \
    MESH_RUN_DIR=/run/mesh \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# `mesh run` looks for mesh.yaml where it stands
WORKDIR /etc/mesh
USER 17000:17000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=3s --timeout=3s --start-period=30s --retries=3 CMD ["mesh", "status", "--ready"]
ENTRYPOINT ["mesh"]
CMD ["--help"]
