package cluster

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"

	"k8s.io/apimachinery/pkg/version"
)

// Release is the version of Proa, Commit what it was built from, and Date (RFC 3339) when that was committed; the build sets
// them by -ldflags -X. Commit and Date are those that the Go toolchain has noted, if it has, when they are empty.
var (
	Release = "0.1.0-dev"
	Commit  string
	Date    string
)

// Version is what /version answers: the Kubernetes version whose API this is, with Proa's own behind the plus sign.
func Version() version.Info {
	v := version.Info{
		GitVersion:   "v0.0.0+proa-" + Release,
		GitCommit:    Commit,
		GitTreeState: "clean",
		BuildDate:    Date,
		GoVersion:    runtime.Version(),
		Compiler:     runtime.Compiler,
		Platform:     runtime.GOOS + "/" + runtime.GOARCH,
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit = cmp.Or(v.GitCommit, s.Value)
		case "vcs.time":
			v.BuildDate = cmp.Or(v.BuildDate, s.Value)
		case "vcs.modified":
			if s.Value == "true" {
				v.GitTreeState = "dirty"
			}
		}
	}
	for _, dep := range build.Deps {
		if dep.Path == "k8s.io/api" {
			setKubernetesVersion(&v, dep.Version)
		}
	}
	return v
}

// setKubernetesVersion derives the version of Kubernetes from that of its API module: v0.37.2 belongs to v1.37.2.
func setKubernetesVersion(v *version.Info, module string) {
	parts := strings.SplitN(strings.TrimPrefix(module, "v"), ".", 3)
	if len(parts) != 3 {
		return
	}
	v.Major, v.Minor = "1", parts[1]
	v.EmulationMajor, v.EmulationMinor = v.Major, v.Minor
	v.MinCompatibilityMajor, v.MinCompatibilityMinor = v.Major, v.Minor
	v.GitVersion = "v1." + parts[1] + "." + parts[2] + "+proa-" + Release
}
