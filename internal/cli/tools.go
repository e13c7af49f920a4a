package cli

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"

	"github.com/proa-k8s/proa/internal/cluster"
	"github.com/proa-k8s/proa/internal/containerd/images"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of Proa and of the Kubernetes API that it serves",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			v := cluster.Version()
			printf(cmd.OutOrStdout(), "proa %s\nKubernetes API v%s.%s\n%s %s\n", v.GitVersion, v.Major, v.Minor, runtime.Version(), v.Platform)
		},
	}
}

// newKubectl is kubectl itself. Its flags are its own, but for a --name and --data-dir before all others.
func newKubectl() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [--name NAME] [--data-dir DIR] ...",
		Short:              "kubectl, for the cluster's administrator unless KUBECONFIG or --kubeconfig says otherwise",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			var p place
			args = p.takeFlags(args)
			l, err := p.layout()
			if err != nil {
				return err
			}
			return runKubectl(l, args)
		},
	}
}

// takeFlags takes --name and --data-dir from the front of args and returns the rest.
func (p *place) takeFlags(args []string) []string {
	p.name, p.dataDir = os.Getenv(envPrefix+"NAME"), os.Getenv(envPrefix+"DATA_DIR")
	for len(args) > 0 {
		key, value, joined := strings.Cut(args[0], "=")
		var target *string
		switch key {
		case "--name":
			target = &p.name
		case "--data-dir":
			target = &p.dataDir
		default:
			return args
		}
		args = args[1:]
		if !joined {
			if len(args) == 0 {
				return args
			}
			value, args = args[0], args[1:]
		}
		*target = value
	}
	return args
}

func runKubectl(l cluster.Layout, args []string) error {
	if os.Getenv("KUBECONFIG") == "" {
		if _, err := os.Stat(l.AdminKubeconfig()); err == nil {
			// kubectl's own code reads the variable at several places.
			if err := os.Setenv("KUBECONFIG", l.AdminKubeconfig()); err != nil {
				return err
			}
		}
	}
	os.Args = append([]string{"kubectl"}, args...) // kubectl looks there for plugins and for what to call itself
	if code := cli.Run(kubectlcmd.NewDefaultKubectlCommand()); code != 0 {
		return exitError{code: code}
	}
	return nil
}

func newImage() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Load, list and remove container images of this machine's node",
	}
	running := func() (string, error) {
		l, err := p.layout()
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(l.ContainerdSocket()); err != nil {
			return "", fmt.Errorf("cluster %q has no container runtime here: start it with 'proa up%s'", l.Name, nameFlag(l))
		}
		return l.ContainerdSocket(), nil
	}
	load := &cobra.Command{
		Use:   "load FILE...",
		Short: "Load images from archives made by 'docker save' or in OCI layout; - is standard input",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			address, err := running()
			if err != nil {
				return err
			}
			for _, file := range files {
				if err := loadImages(cmd, address, file); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			}
			return nil
		},
	}
	list := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List images",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := running()
			if err != nil {
				return err
			}
			all, err := images.List(cmd.Context(), address)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			printf(w, "IMAGE\tDIGEST\tSIZE\n")
			for _, img := range all {
				printf(w, "%s\t%s\t%s\n", img.Name, shortDigest(img.Digest), byteSize(img.Size))
			}
			return w.Flush()
		},
	}
	remove := &cobra.Command{
		Use:     "remove IMAGE...",
		Aliases: []string{"rm"},
		Short:   "Remove images",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			address, err := running()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, images.Remove(cmd.Context(), address, name))
			}
			return errors.Join(errs...)
		},
	}
	for _, sub := range []*cobra.Command{load, list, remove} {
		p.addFlags(sub.Flags())
	}
	cmd.AddCommand(load, list, remove)
	return cmd
}

func loadImages(cmd *cobra.Command, address, file string) error {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	_, err := images.Load(cmd.Context(), address, in, func(img images.Image) {
		printf(cmd.OutOrStdout(), "%s\n", img.Name)
	})
	return err
}

// shortDigest is enough of a digest to tell images apart by eye.
func shortDigest(d string) string {
	if len(d) > 19 {
		return d[:19]
	}
	return d
}

func byteSize(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n), -1
	for f >= unit && i < 3 {
		f, i = f/unit, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGT"[i])
}
