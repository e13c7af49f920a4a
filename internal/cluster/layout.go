package cluster

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
)

// DefaultName is the name of the cluster when none is given.
const DefaultName = "proa"

// Where clusters live when no --data-dir is given, and what does not outlive a reboot.
const (
	dataRoot = "/var/lib/proa"
	runRoot  = "/run/proa"
)

// A name becomes part of link, table, cgroup and socket names.
var nameRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// Layout derives everything of a cluster that is global on a host from its name and its data directory, so that several
// clusters can live on one machine and each can be removed without a trace.
type Layout struct {
	Name    string
	DataDir string
	RunDir  string
}

// NewLayout checks the name and fills in the directories; an empty name or dataDir means the default.
func NewLayout(name, dataDir string) (Layout, error) {
	if name == "" {
		name = DefaultName
	}
	if !nameRE.MatchString(name) {
		return Layout{}, fmt.Errorf("name %q: must be 1 to 32 lower case letters, digits or '-', and begin and end with a letter or digit", name)
	}
	if dataDir == "" {
		dataDir = filepath.Join(dataRoot, name)
	}
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return Layout{}, fmt.Errorf("data directory: %w", err)
	}
	if dataDir == "/" {
		return Layout{}, fmt.Errorf("data directory: must not be /")
	}
	return Layout{Name: name, DataDir: dataDir, RunDir: filepath.Join(runRoot, name)}, nil
}

// MakeDirs makes the data and the run directory, readable by root only.
func (l Layout) MakeDirs() error {
	for _, dir := range []string{l.DataDir, l.RunDir, l.LogDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// EtcdDir holds the store.
func (l Layout) EtcdDir() string { return filepath.Join(l.DataDir, "etcd") }

// PKIDir holds the certificate authorities and keys.
func (l Layout) PKIDir() string { return filepath.Join(l.DataDir, "pki") }

// BinDir holds the helper executables and CNI plugins.
func (l Layout) BinDir() string { return filepath.Join(l.DataDir, "bin") }

// ContainerdRoot holds images and snapshots.
func (l Layout) ContainerdRoot() string { return filepath.Join(l.DataDir, "containerd") }

// ContainerdState holds what containerd knows of running containers.
func (l Layout) ContainerdState() string { return filepath.Join(l.RunDir, "containerd") }

// ContainerdSocket is where the container runtime listens.
func (l Layout) ContainerdSocket() string { return filepath.Join(l.RunDir, "containerd.sock") }

// CNIConfDir is where network configurations are read from.
func (l Layout) CNIConfDir() string { return filepath.Join(l.DataDir, "cni", "net.d") }

// CNIStateDir holds the addresses that are in use.
func (l Layout) CNIStateDir() string { return filepath.Join(l.DataDir, "cni", "state") }

// RegistryConfigDir holds a directory with a hosts.toml for each registry.
func (l Layout) RegistryConfigDir() string { return filepath.Join(l.DataDir, "certs.d") }

// KubeletDir holds pods' volumes.
func (l Layout) KubeletDir() string { return filepath.Join(l.DataDir, "kubelet") }

// StaticPodDir is watched for manifests of static pods.
func (l Layout) StaticPodDir() string { return filepath.Join(l.DataDir, "manifests") }

// LogDir holds the cluster's own log and, beneath pods, those of containers.
func (l Layout) LogDir() string { return filepath.Join(l.DataDir, "log") }

// PodLogDir holds the logs of containers.
func (l Layout) PodLogDir() string { return filepath.Join(l.LogDir(), "pods") }

// LogFile is where a cluster in the background writes its log.
func (l Layout) LogFile() string { return filepath.Join(l.LogDir(), "proa.log") }

// AdminKubeconfig is the administrator's kubeconfig.
func (l Layout) AdminKubeconfig() string { return filepath.Join(l.DataDir, "admin.kubeconfig") }

// LockFile is locked by the process that runs the cluster and holds its process id.
func (l Layout) LockFile() string { return filepath.Join(l.RunDir, "lock") }

// CgroupRoot is the parent of all cgroups of the cluster, from the root of each hierarchy.
func (l Layout) CgroupRoot() string { return "/" + l.global() }

// NftTable is the name of the nftables table of each family.
func (l Layout) NftTable() string { return l.global() }

// NodeTable is the name of the nftables table for what is no service: the name of a cluster has no dot.
func (l Layout) NodeTable() string { return l.global() + ".node" }

// Bridge is the name of the bridge that pods are attached to: at most 15 bytes, as Linux demands.
func (l Layout) Bridge() string { return l.link("") }

// Link makes the name of another link of the cluster; kind is one or two letters.
func (l Layout) link(kind string) string {
	if name := l.global() + kind + "0"; len(name) <= 15 {
		return name
	}
	h := fnv.New32a()
	h.Write([]byte(l.Name))
	return fmt.Sprintf("proa%s-%08x", kind, h.Sum32())
}

func (l Layout) global() string {
	if l.Name == DefaultName {
		return DefaultName
	}
	return DefaultName + "-" + l.Name
}
