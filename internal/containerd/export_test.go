package containerd

// Shims returns the processes of shims below bin and of their containers, for tests.
func Shims(bin string) ([]process, error) {
	all, err := processes()
	shims, beneath := family(all, bin)
	return append(shims, beneath...), err
}
