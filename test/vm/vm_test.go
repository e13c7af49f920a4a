package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// commands runs tests in the machine. Of the end-to-end tests these are those that have to do with the kernel; more would take
// long. In the box, the hierarchy of cgroups is a part of the machine's, as in a container: its root has processes, which
// must make way so that controllers can be delegated. The last one ends the machine's memory.
const commands = `
mkdir -p /var/tmp && export TMPDIR=/var/tmp
run() { name=$1; shift; echo "vm: $name $*"; "/proa/tests/$name.test" -test.v -test.parallel 1 -test.failfast -test.timeout 20m "$@"; }
cd /proa/test/e2e
run cgroups && run cni && run proxy &&
run e2e -patience 5m -test.run '^(TestStory07ClusterIP|TestStory08NodePort|TestPodNetwork|TestKubectlLogs|TestLimits|TestOutOfMemory|TestStatistics|TestResizePod|TestStorageLimits|TestKillServer)$' || exit
/proa/tests/box /proa/tests/e2e.test -test.v -patience 5m -test.run '^TestLimits$' || exit
run e2e -patience 5m -exhaust -test.run '^TestMemoryPressure$'
`

// TestOtherKernel runs end-to-end tests on the kernel of Debian, which has its parts as modules, with cgroup v2.
func TestOtherKernel(t *testing.T) {
	build := os.Getenv("PROA_VM")
	if build == "" {
		t.Skip("takes minutes and needs a kernel: run 'make test-vm'")
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	m := Machine{
		Kernel: filepath.Join(build, "kernel"),
		Root:   "root",
		Work:   t.TempDir(),
		Files: map[string]string{
			"/proa/bin/proa":          filepath.Join(repo, "bin", "proa"),
			"/proa/build/images":      filepath.Join(repo, "build", "images"),
			"/proa/test/e2e/testdata": filepath.Join(repo, "test", "e2e", "testdata"),
			"/proa/tests":             filepath.Join(build, "tests"),
		},
	}
	if path := staticKubectl(); path != "" {
		m.Files["/usr/bin/kubectl"] = path
	}
	if err := m.addProgram("nft"); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(build, "serial.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var text bytes.Buffer
	console := io.MultiWriter(log, &text)
	if testing.Verbose() {
		console = io.MultiWriter(log, &text, os.Stdout)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	if err := m.Run(ctx, commands, console); err != nil {
		t.Errorf("%v; the console's log is %s, its end:\n%s", err, log.Name(), tail(text.String(), 150))
	}
	for line := range strings.Lines(text.String()) {
		if kernelTrouble.MatchString(line) {
			t.Errorf("the kernel complains: %s", line)
		}
	}
}

// kernelTrouble is what the kernel prints when something goes wrong with itself.
var kernelTrouble = regexp.MustCompile(`\] (BUG:|WARNING:|Oops|general protection|Kernel panic|unregister_netdevice: waiting)`)

// staticKubectl is the path of the machine's kubectl if it runs without libraries, else empty.
func staticKubectl() string {
	path, err := exec.LookPath("kubectl")
	if err != nil {
		return ""
	}
	file, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return ""
	}
	return path
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

func TestAddProgram(t *testing.T) {
	var m Machine
	if err := m.addProgram("sh"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(m.Files["/bin/sh"], "/sh") {
		t.Errorf("the program is not among %v", m.Files)
	}
	for to, from := range m.Files {
		if _, err := os.Stat(from); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	if err := m.addProgram("no-such-program"); err == nil {
		t.Error("a program that is not there was added")
	}
}

func TestFollow(t *testing.T) {
	var console strings.Builder
	code, err := follow(strings.NewReader("hello\r\nvm: exit code 3\r\n[   1.0] reboot: Power down"), &console)
	if err != nil || code != "3" || console.String() != "hello\nvm: exit code 3\n[   1.0] reboot: Power down" {
		t.Errorf("got %q, %v, %q", code, err, console.String())
	}
	if code, err := follow(strings.NewReader("panic"), io.Discard); err != nil || code != "" {
		t.Errorf("without an end: %q, %v", code, err)
	}
}

func TestPlace(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(filepath.Join(from, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "d", "f"), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(from, "d", "l")); err != nil {
		t.Fatal(err)
	}
	if err := place(from, to); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(filepath.Join(from, "d", "f"), filepath.Join(to, "copy")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d/f", "d/l", "copy"} {
		if data, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(data) != "x" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if info, err := os.Stat(filepath.Join(to, "copy")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("copy: %v, %v", info, err)
	}
	if link, err := os.Readlink(filepath.Join(to, "d/l")); err != nil || link != "f" {
		t.Errorf("link: %q, %v", link, err)
	}
}
