// Command proa is Kubernetes in one binary: the control plane, the node agent and the tools to run them.
package main

import (
	"os"

	"github.com/proa-k8s/proa/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Environ()))
}
