# The OpenAPI documents that proa embeds. The root Makefile includes this file.

OPENAPI := internal/apiserver/openapi/embedded/index.json

# The program looks itself whether anything that matters has changed.
$(OPENAPI): go.mod $(wildcard internal/api/*.go internal/api/*/*.go hack/openapi/*.go hack/openapi/*/*.go internal/apiserver/openapi/*.go)
	$(GO) run ./hack/openapi
	@touch $@

.PHONY: openapi
openapi: $(OPENAPI) ## make the OpenAPI documents that are embedded
