# The image that agents work in: small tools for reading and changing code, and no way to become root.
# It needs neither BuildKit nor a build context: `docker build --target agent - <Dockerfile`, or
# `make image`, which also works where no registry answers.
#
# The digest is the one of the multi-platform index. To move on: pull the newest dated tag,
# `docker image inspect --format '{{.RepoDigests}}' debian:trixie-DATE-slim`, write both here.
ARG BASE=debian:trixie-20261005-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
# What agent-sandbox itself is built with, for the broker and the GitHub Action.
ARG GO=golang:1.26-trixie
FROM ${BASE} AS agent

# Debian's archive as it was at this moment, such as 20261005T000000Z; empty means as it is now.
# apt knows where the snapshots of its sources are kept.
ARG SNAPSHOT=

# Why each package is here:
#   ca-certificates  HTTPS; the sandbox adds its own certificate to this bundle for the run
#   curl             the first thing that agents and build scripts reach for
#   git              history, diffs and commits: how agents look at a project and hand work back
#   jq               JSON on the command line
#   less             the pager of git and man; without it `git log` on a terminal shows raw control codes
#   nodejs           the runtime that most coding agents are written for
#   openssh-client   git remotes over ssh, ssh-keygen for signed commits
#   patch            how several agents apply the edits of their model
#   procps           ps and pgrep: Node programs stop the process trees that they started through them
#   python3          scripts of agents, and a test runner that is always there
#   ripgrep          agents search with it, and are slow without it
#
# After that, in the same layer, so that nothing removed stays below:
# - No setuid or setgid program is left. The sandbox makes them harmless (no_new_privs), but nothing
#   in here has a use for them, and the image may be run without the sandbox.
# - Caches, lists and logs go: they are large, and they differ from build to build.
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get ${SNAPSHOT:+--snapshot "$SNAPSHOT"} -o APT::Update::Error-Mode=any update; \
    apt-get ${SNAPSHOT:+--snapshot "$SNAPSHOT"} install -y --no-install-recommends \
        ca-certificates \
        curl \
        git \
        jq \
        less \
        nodejs \
        openssh-client \
        patch \
        procps \
        python3 \
        ripgrep; \
    useradd --uid 1000 --user-group --create-home --shell /bin/bash agent; \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +; \
    apt-get clean; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
        /var/log/* /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /tmp/* /var/tmp/*

# UTF-8 without the locales package: Python and git would otherwise take file names for ASCII.
ENV LANG=C.UTF-8
USER agent
CMD ["bash"]

LABEL org.opencontainers.image.title="agent-sandbox" \
      org.opencontainers.image.description="Tools for coding agents, to be run by agent-sandbox" \
      org.opencontainers.image.source="https://github.com/org/agent-sandbox" \
      org.opencontainers.image.documentation="https://github.com/org/agent-sandbox#readme" \
      org.opencontainers.image.licenses="Apache-2.0"

# The program, from this repository, for the stages below.
FROM ${GO} AS build
WORKDIR /src
# What the program is made of, and no more: whatever else changes, an engine that has built it before is done at once.
COPY go.mod go.sum ./
COPY .github/scripts/build .github/scripts/lib.sh .github/scripts/
COPY policy policy
COPY runner runner
COPY cmd cmd
ARG VERSION=unknown
RUN VERSION="$VERSION" .github/scripts/build && mkdir -p /rootfs/var/lib/broker

# The token broker (docs/broker.md): the program and certificate authorities, and nothing else: no shell, no library, no root.
# A volume at /var/lib/broker is the user's own, for SQLite.
FROM scratch AS broker
COPY --from=agent /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/bin/agent-sandbox /agent-sandbox
COPY --from=build --chown=65532:65532 /rootfs/ /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/agent-sandbox", "broker"]
CMD ["serve", "--config", "/etc/broker/broker.yaml"]
LABEL org.opencontainers.image.title="agent-sandbox-broker" \
      org.opencontainers.image.description="Exchanges the OIDC tokens of jobs for short-lived tokens of GitHub" \
      org.opencontainers.image.source="https://github.com/org/agent-sandbox" \
      org.opencontainers.image.licenses="Apache-2.0"

# The GitHub Action (action.yml). It starts the agent's container beside its own, through the engine's socket, so it is root, as actions are.
# git makes the commits of `apply: commit` and reads the base of a pull request.
FROM ${BASE} AS action
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get -o APT::Update::Error-Mode=any update; \
    apt-get install -y --no-install-recommends ca-certificates git; \
    apt-get clean; \
    rm -rf /var/lib/apt/lists/* /var/log/*; \
    printf '#!/bin/sh\nexec agent-sandbox action --post\n' >/usr/local/bin/agent-sandbox-post; \
    chmod 755 /usr/local/bin/agent-sandbox-post; \
    install -d -m 1777 /var/lib/agent-sandbox
# What the step needs for itself is kept here, on a volume that goes with this container. So is what the agent changes, where the runner has
# nothing that outlives it: the kernel puts no overlay over the container's own layer, and the engine shows a volume to the agent's container.
ENV TMPDIR=/var/lib/agent-sandbox
VOLUME /var/lib/agent-sandbox
COPY --from=build /src/bin/agent-sandbox /usr/local/bin/agent-sandbox
ENTRYPOINT ["agent-sandbox", "action"]
