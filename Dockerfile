# Two stages: what builds stays behind, what runs is one binary without a shell.
# Both images can be replaced, by tag or digest: --build-arg RUN_IMAGE=…
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# hadolint ignore=DL3006
FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
# The copy leaves `target` free to be a cache that is mounted.
RUN cargo build --release --locked --bin splitway && \
    install -D target/release/splitway /out/splitway

# hadolint ignore=DL3006
FROM ${RUN_IMAGE}
COPY --from=build /out/splitway /usr/local/bin/splitway
# 65532 is `nonroot` of distroless; it owns nothing but what is mounted for it.
USER 65532:65532
EXPOSE 8080 9900
# The journal, and the file that is served; the root needs no writing.
VOLUME ["/var/lib/splitway"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["/usr/local/bin/splitway", "ready"]
# SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/splitway"]
CMD ["run", "--config", "/etc/splitway/splitway.yaml"]
