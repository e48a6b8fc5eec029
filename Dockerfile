# One image for the bus, managers and nodes. `make image` builds it: scripts/image.sh gathers the
# programs it holds. BASE needs glibc no older than where loomctl was built, and whatever tasks
# that run as plain processes on a node are to find: bash, python3, ...
ARG BASE=debian:12-slim
FROM ${BASE}
COPY loomctl loom-shim* nats-server /usr/local/bin/
STOPSIGNAL SIGTERM
CMD ["/usr/local/bin/loomctl", "--help"]
