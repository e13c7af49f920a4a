# The OpenAPI documents that proa embeds. The root Makefile includes this file.

.PHONY: openapi
openapi: ## make the OpenAPI documents that are embedded
	$(GO) run ./hack/openapi
