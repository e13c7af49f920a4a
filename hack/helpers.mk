# The helper executables that proa embeds. The root Makefile includes this file.

HELPERS := internal/containerd/helpers/embedded/manifest.json

# The program looks itself whether anything that matters has changed.
$(HELPERS): build/.deps go.mod hack/pause.c $(wildcard hack/helpers/*.go cmd/containerd-shim-runc-v2/*.go internal/containerd/sandbox/*.go)
	$(GO) run ./hack/helpers
	@touch $@

.PHONY: helpers
helpers: $(HELPERS) ## build the helper executables (runc, shim, CNI plugins, pause) that are embedded
