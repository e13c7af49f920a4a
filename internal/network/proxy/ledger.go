package proxy

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// ledger knows what the kernel has and for whom, and finds out what has to change. Elements that several services want (two
// services of one external address, the pods behind two services) are held by all of them; the value is that of the
// first.
type ledger struct {
	services map[types.NamespacedName]rules
	held     map[elementKey][]holder
	classes  map[familyClass]int // how many frontends are of it

	tx *transaction
}

type holder struct {
	service types.NamespacedName
	value   elementValue
}

type familyClass struct {
	v6    bool
	class class
}

// element is an element with its key.
type element struct {
	elementKey
	elementValue
}

// changes lead from what the kernel has to what it should have. What is added first is what the rest refers to.
type changes struct {
	newClasses []familyClass
	remove     []element
	add        []element
	oldClasses []familyClass
}

func (c changes) empty() bool {
	return len(c.newClasses)+len(c.remove)+len(c.add)+len(c.oldClasses) == 0
}

// transaction remembers what the kernel had of all that was touched since begin.
type transaction struct {
	elements map[elementKey]*elementValue // nil: it had none
	classes  map[familyClass]bool         // whether it had it
}

// split puts off what packets may still look for that are on their way through the rules when these change: a packet may
// have drawn the last of three endpoints when there are but two, and would be refused if it did not find it. The kernel answers a
// transaction when no packet is left that began before it, so the second may follow at once.
func (c changes) split() (first, second changes) {
	stays := make(map[elementKey]bool, len(c.add))
	for _, e := range c.add {
		stays[e.elementKey] = true
	}
	first = changes{newClasses: c.newClasses, add: c.add, oldClasses: c.oldClasses}
	for _, e := range c.remove {
		if e.set.ofEndpoints() && !stays[e.elementKey] {
			second.remove = append(second.remove, e)
		} else {
			first.remove = append(first.remove, e)
		}
	}
	return first, second
}

func newLedger() *ledger {
	return &ledger{services: map[types.NamespacedName]rules{}, held: map[elementKey][]holder{}, classes: map[familyClass]int{}}
}

// begin starts a set of changes.
func (l *ledger) begin() {
	l.tx = &transaction{elements: map[elementKey]*elementValue{}, classes: map[familyClass]bool{}}
}

// replace takes the rules of a service in place of those that it had, and puts the pools of r into their order.
func (l *ledger) replace(service types.NamespacedName, r rules) {
	old := l.services[service]
	for name, p := range r.pools {
		p.endpoints = place(old.pools[name].endpoints, p.endpoints)
		r.pools[name] = p
	}
	was, is := encode(old), encode(r)
	for key := range was {
		if _, stays := is[key]; !stays {
			l.release(key, service)
		}
	}
	for key, value := range is {
		if before, held := was[key]; !held {
			l.hold(key, service, value)
		} else if before != value {
			l.change(key, service, value)
		}
	}
	l.countClasses(r, 1)
	l.countClasses(old, -1)
	if len(is) == 0 {
		delete(l.services, service)
	} else {
		l.services[service] = r
	}
}

// countClasses adds or takes away the users that a service's frontends are to their classes.
func (l *ledger) countClasses(r rules, by int) {
	for f, c := range r.classes() {
		key := familyClass{f.v6(), c}
		if _, touched := l.tx.classes[key]; !touched {
			l.tx.classes[key] = l.classes[key] > 0
		}
		l.classes[key] += by
	}
}

func (l *ledger) touch(key elementKey) {
	if _, touched := l.tx.elements[key]; touched {
		return
	}
	l.tx.elements[key] = nil
	if holders := l.held[key]; len(holders) > 0 {
		value := holders[0].value
		l.tx.elements[key] = &value
	}
}

// hold notes that a service wants an element that it did not want before. Thousands may hold the same one (a pod behind
// thousands of services), so none of them is looked at.
func (l *ledger) hold(key elementKey, service types.NamespacedName, value elementValue) {
	l.touch(key)
	l.held[key] = append(l.held[key], holder{service, value})
}

// change notes that a service wants another value of an element that it holds.
func (l *ledger) change(key elementKey, service types.NamespacedName, value elementValue) {
	l.touch(key)
	holders := l.held[key]
	holders[indexOf(holders, service)].value = value
}

// release notes that a service that holds an element wants it no more.
func (l *ledger) release(key elementKey, service types.NamespacedName) {
	l.touch(key)
	holders := l.held[key]
	if len(holders) == 1 {
		delete(l.held, key)
		return
	}
	i := indexOf(holders, service)
	l.held[key] = slices.Delete(holders, i, i+1)
}

func indexOf(holders []holder, service types.NamespacedName) int {
	return slices.IndexFunc(holders, func(h holder) bool { return h.service == service })
}

// commit gives what has changed since begin, as far as it makes a difference in the end.
func (l *ledger) commit() changes {
	var c changes
	for key, had := range l.tx.classes {
		switch has := l.classes[key] > 0; {
		case has && !had:
			c.newClasses = append(c.newClasses, key)
		case had && !has:
			c.oldClasses = append(c.oldClasses, key)
		}
		if l.classes[key] == 0 {
			delete(l.classes, key)
		}
	}
	for key, had := range l.tx.elements {
		holders := l.held[key]
		has := len(holders) > 0
		if had != nil && has && *had == holders[0].value {
			continue
		}
		if had != nil {
			c.remove = append(c.remove, element{key, *had})
		}
		if has {
			c.add = append(c.add, element{key, holders[0].value})
		}
	}
	l.tx = nil
	return c
}

// everything gives what a kernel that has nothing needs.
func (l *ledger) everything() changes {
	var c changes
	for key := range l.classes {
		c.newClasses = append(c.newClasses, key)
	}
	for key, holders := range l.held {
		c.add = append(c.add, element{key, holders[0].value})
	}
	return c
}

// place puts the endpoints of want into an order that has as many as possible where they were, so that little changes in the
// kernel: those that are gone are replaced by new ones, or by the last.
func place(old, want []netip.AddrPort) []netip.AddrPort {
	wanted := make(map[netip.AddrPort]bool, len(want))
	for _, e := range want {
		wanted[e] = true
	}
	order := make([]netip.AddrPort, len(want))
	for i, e := range old {
		if i < len(order) && wanted[e] {
			order[i] = e
			delete(wanted, e)
		}
	}
	next := 0
	for _, e := range want {
		if !wanted[e] {
			continue
		}
		for order[next].IsValid() {
			next++
		}
		order[next] = e
	}
	return order
}
