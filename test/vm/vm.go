// Package vm runs commands on another Linux kernel than the machine's own, in a virtual machine that is made for them.
//
// What flows in are a kernel package, unpacked, and files and a command for the machine; what flows out are the text of its
// console and whether the command succeeded. The machine has busybox's init, cgroup v2 alone with every process in its
// root, the kernel's modules loaded as needed, no network but loopback and a link that leads nowhere. It is emulated in
// software, which is some ten times slower than a processor.
package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Machine is what a virtual machine is made of.
type Machine struct {
	// Kernel is where a kernel package is unpacked: boot/vmlinuz-VERSION and lib/modules/VERSION.
	Kernel string
	// Root is a directory of files that are laid over the userland.
	Root string
	// Files are files and directories of this machine by their paths in the virtual one.
	Files map[string]string
	// Work is an empty directory for what is made on the way.
	Work string
}

// addProgram adds a program of this machine, with the libraries that it needs.
func (m *Machine) addProgram(name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if m.Files == nil {
		m.Files = map[string]string{}
	}
	m.Files["/bin/"+name] = path
	// The loader tells: NAME => PATH (ADDRESS), or for itself PATH (ADDRESS). What is linked statically has none.
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		return fmt.Errorf("ldd %s: %w: %s", path, err, out)
	}
	for field := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(field, "/") && field != path+":" {
			m.Files[field] = field
		}
	}
	return nil
}

// endMark begins the last line of the console, before the exit code of the command.
const endMark = "vm: exit code "

// Run boots the machine, which runs command with a shell, and returns when it has ended. Nothing of it is left when ctx
// ends, either. console gets what the machine prints.
func (m *Machine) Run(ctx context.Context, command string, console io.Writer) error {
	kernel, err := m.image()
	if err != nil {
		return err
	}
	disk, err := m.disk(ctx, strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-"), command)
	if err != nil {
		return fmt.Errorf("making the machine's disk: %w", err)
	}
	qemu := exec.CommandContext(ctx, "nice", "-n", "19", "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072",
		"-nographic", "-nic", "none", "-no-reboot", "-kernel", kernel,
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off root=/dev/nvme0n1 rw",
		// What the machine writes need not outlive it.
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file="+disk, "-device", "nvme,drive=disk,serial=1")
	output, err := qemu.StdoutPipe()
	if err != nil {
		return err
	}
	qemu.Stderr = qemu.Stdout
	if err := qemu.Start(); err != nil {
		return err
	}
	end, readErr := follow(output, console)
	if err := errors.Join(readErr, qemu.Wait()); err != nil {
		return fmt.Errorf("running qemu: %w", errors.Join(context.Cause(ctx), err))
	}
	switch end {
	case "0":
		return nil
	case "":
		return errors.New("the machine went down before the command had ended")
	}
	return fmt.Errorf("the command ended with code %s", end)
}

// follow copies the console and returns the exit code that it tells, if it does.
func follow(output io.Reader, console io.Writer) (code string, err error) {
	lines := bufio.NewReader(output)
	for {
		line, err := lines.ReadString('\n')
		if _, err := io.WriteString(console, strings.ReplaceAll(line, "\r\n", "\n")); err != nil {
			return code, err
		}
		if _, after, ok := strings.Cut(line, endMark); ok {
			code = strings.TrimSpace(after)
		}
		if errors.Is(err, io.EOF) {
			return code, nil
		}
		if err != nil {
			return code, err
		}
	}
}

// image finds the kernel.
func (m *Machine) image() (string, error) {
	found, err := filepath.Glob(filepath.Join(m.Kernel, "boot", "vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s has %d kernels, want one", m.Kernel, len(found))
	}
	return found[0], nil
}

// disk makes the image of a file system with all that the machine has.
func (m *Machine) disk(ctx context.Context, version, command string) (string, error) {
	root := filepath.Join(m.Work, "root")
	for _, dir := range []string{"bin", "sbin", "usr/bin", "usr/sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var/lib", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	files := map[string]string{
		"/":                       m.Root,
		"/bin/busybox":            "/bin/busybox",
		"/lib/modules/" + version: filepath.Join(m.Kernel, "lib", "modules", version),
	}
	for to, from := range m.Files {
		files[to] = from
	}
	for to, from := range files {
		if err := place(from, filepath.Join(root, to)); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "command"), []byte(command+"\n"), 0o755); err != nil {
		return "", err
	}
	image := filepath.Join(m.Work, "disk")
	for _, args := range [][]string{
		{"chroot", root, "/bin/busybox", "--install", "-s"},
		{"chroot", root, "/bin/busybox", "depmod", version},
		{"mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, image, "4G"},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return image, nil
}

// place puts a file, or a directory with all that is in it, to another path. Files are linked where that is possible.
func place(from, to string) error {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case entry.Type()&os.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if os.Link(path, target) == nil {
			return nil
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
