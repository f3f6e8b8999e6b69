# Stage 1: the release binary, Swift's own libraries linked in.
FROM swift:6.3-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcurl4-openssl-dev libssl-dev libhiredis-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Package.swift ./
COPY Sources ./Sources
COPY Tests ./Tests
RUN swift build -c release --static-swift-stdlib --product tollgate \
    && install -D .build/release/tollgate /out/tollgate

# Stage 2: the binary, the three C libraries that it uses, and a user that may write its journal and nothing else.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcurl4 libssl3 libhiredis0.14 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/tollgate tollgate \
    && install -d -o tollgate -g tollgate -m 0700 /var/lib/tollgate/journal
COPY --from=build /out/tollgate /usr/local/bin/tollgate
USER tollgate
VOLUME /var/lib/tollgate
EXPOSE 8080
ENV TOLLGATE_CONFIG=/etc/tollgate/tollgate.yaml
ENTRYPOINT ["tollgate"]
CMD ["serve"]
