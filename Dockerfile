# The program and nothing else; goreleaser gives it a folder for each platform.
#
#   docker run --rm -v "$PWD:/work" ghcr.io/tensorpress/tensorpress quantize model.safetensors small.safetensors
FROM scratch
ARG TARGETPLATFORM
COPY $TARGETPLATFORM/tensorpress /usr/bin/tensorpress
WORKDIR /work
ENTRYPOINT ["/usr/bin/tensorpress"]
