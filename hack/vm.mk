# Tests on another kernel, in a virtual machine that is emulated in software. The root Makefile includes this file.

VM := build/vm

# What runs there: the packages that deal with the kernel, and some end-to-end tests.
VM_TESTS := internal/kubelet/cgroups internal/network/cni internal/network/proxy test/e2e

# The kernel is Debian's own, unpacked where nothing boots from it.
$(VM)/kernel/.done: hack/vm.mk
	@mkdir -p $(VM)
	@missing=$$(for p in qemu-system-x86 e2fsprogs busybox-static; do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok' || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing $$missing"; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; fi
	rm -rf $(VM)/kernel $(VM)/*.deb
	package=$$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$$/\1/p' | head -n 1) && \
	  cd $(VM) && apt-get download -q $$package && dpkg -x $$package*.deb kernel && rm $$package*.deb
	@touch $@

.PHONY: test-vm
test-vm: bin/proa $(VM)/kernel/.done ## run end-to-end tests on another kernel, with cgroup v2
	$(GO) run ./test/images -o build/images
	mkdir -p $(VM)/tests
	for p in $(VM_TESTS); do CGO_ENABLED=0 $(GO) test -c -ldflags '-s -w' -o $(VM)/tests/ ./$$p || exit; done
	CGO_ENABLED=0 $(GO) build -o $(VM)/tests/box ./test/vm/box
	PROA_VM=$(CURDIR)/$(VM) $(GO) test -count=1 -v -timeout 30m ./test/vm
