# The command in an image that holds nothing else: about 10 MB, no shell, no libc.
#
#   docker build -t rowdelta .
#   docker run --rm -v "$PWD:/data:ro" -e DATABASE_URL rowdelta sync -m /data/mapping.toml /data/feed.ndjson.gz
#
# On Alpine Rust links statically against musl. `demo` and `--local` need a PostgreSQL on the machine: not in here.

FROM rust:1-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin rowdelta

FROM scratch
COPY --from=build /src/target/release/rowdelta /rowdelta
USER 65534:65534
ENTRYPOINT ["/rowdelta"]
