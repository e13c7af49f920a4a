package proxy

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// elementsPerMessage keeps the elements of one message below 64 KiB, the most that a netlink attribute holds.
const elementsPerMessage = 256

// Memory of the socket: a transaction is sent at once, and every message in it is acknowledged. The kernel takes the memory
// when it is needed only.
const socketBuffer = 64 << 20

// kernel writes changes to the tables, in one transaction for each set of changes, or in two (see split).
type kernel struct {
	layouts map[bool]*layout // by whether it is IPv6
	// conn is kept open: when a socket is closed, the kernel waits until what was deleted by it is out of use everywhere, for
	// several milliseconds.
	conn *nftables.Conn
}

func newKernel(c Config) *kernel {
	k := &kernel{layouts: map[bool]*layout{}}
	for _, v6 := range []bool{false, true} {
		if len(ofFamily(c.ServiceCIDRs, v6)) > 0 {
			k.layouts[v6] = newLayout(c.Table, v6, c.ClusterCIDRs, c.ServiceCIDRs)
		}
	}
	return k
}

// replace puts new tables in the place of those that are there, if any.
func (k *kernel) replace(all changes) error { return k.transact(all, true) }

// apply changes the tables.
func (k *kernel) apply(c changes) error {
	first, second := c.split()
	for _, part := range []changes{first, second} {
		if part.empty() {
			continue
		}
		if err := k.transact(part, false); err != nil {
			return err
		}
	}
	return nil
}

func (k *kernel) transact(c changes, create bool) error {
	conn, err := k.open()
	if err != nil {
		return err
	}
	for v6, l := range k.layouts {
		w := &writer{layout: l, conn: conn}
		if create {
			w.create()
		}
		w.change(c, v6)
		if w.err != nil {
			return errors.Join(w.err, k.close())
		}
	}
	if err := conn.Flush(); err != nil {
		return errors.Join(fmt.Errorf("nftables transaction: %w", err), k.close()) // there may be more to read
	}
	return nil
}

func (k *kernel) open() (*nftables.Conn, error) {
	if k.conn != nil {
		return k.conn, nil
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
		if err := s.SetWriteBuffer(socketBuffer); err != nil {
			return err
		}
		return s.SetReadBuffer(socketBuffer)
	}))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	k.conn = conn
	return conn, nil
}

// close closes the connection; the next transaction opens another.
func (k *kernel) close() error {
	if k.conn == nil {
		return nil
	}
	conn := k.conn
	k.conn = nil
	return conn.CloseLasting()
}

// change adds the changes in one family.
func (w *writer) change(c changes, v6 bool) {
	// Chains of single endpoints come before those that lead to them, and go after them.
	for _, remember := range []bool{true, false} {
		for _, n := range c.newClasses {
			if n.v6 == v6 && n.class.remember == remember {
				w.classChain(n.class)
			}
		}
	}
	for s, some := range bySet(c.remove, v6) {
		w.elements(set(s), some, w.conn.SetDeleteElements)
	}
	for s, some := range bySet(c.add, v6) {
		w.elements(set(s), some, w.conn.SetAddElements)
	}
	for _, remember := range []bool{false, true} {
		for _, o := range c.oldClasses {
			if o.v6 != v6 || o.class.remember != remember {
				continue
			}
			w.conn.DelChain(&nftables.Chain{Table: w.table, Name: o.class.chain()})
			if remember {
				w.conn.DelSet(w.clients(o.class))
			}
		}
	}
}

func bySet(all []element, v6 bool) [sets][]nftables.SetElement {
	var some [sets][]nftables.SetElement
	for _, e := range all {
		if e.v6 != v6 {
			continue
		}
		n := nftables.SetElement{Key: []byte(e.key), Val: []byte(e.value), KeyEnd: []byte(e.end), Comment: e.comment}
		if e.chain != "" {
			n.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.chain}
		}
		some[e.set] = append(some[e.set], n)
	}
	return some
}

func (w *writer) elements(s set, all []nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) {
	for len(all) > 0 && w.err == nil {
		n := min(len(all), elementsPerMessage)
		if err := do(w.sets[s], all[:n]); err != nil {
			w.err = fmt.Errorf("elements of %s: %w", setNames[s].name, err)
		}
		all = all[n:]
	}
}

// families tells which the cluster has.
func (k *kernel) families() (v4, v6 bool) { return k.layouts[false] != nil, k.layouts[true] != nil }
