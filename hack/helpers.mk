# The helper executables that proa embeds. The root Makefile includes this file.

.PHONY: helpers
helpers: ## build the helper executables (runc, shim, CNI plugins, pause) that are embedded
	$(GO) run ./hack/helpers
