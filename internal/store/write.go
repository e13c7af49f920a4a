package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime"
)

// guardTries is how often Update and Delete compute their companions anew before they give up with ErrGuard.
const guardTries = 8

// Create writes an object that is not there yet, together with ops. From here on obj belongs to the store: nobody may
// change it any more, unless Create fails. It should be as it would be read back (times without fractions of seconds).
// Errors: ErrExists; ErrGuard, when the caches have seen what was in the way of ops; ErrTooLarge.
func (c *Cache) Create(ctx context.Context, namespace, name string, obj runtime.Object, ops []Op) (*Object, error) {
	key, err := c.writeKey(namespace, name)
	if err != nil {
		return nil, err
	}
	value, err := c.encode(key, obj)
	if err != nil {
		return nil, err
	}
	object, resp, err := c.put(ctx, key, 0, value, obj, ops)
	if err != nil || object != nil {
		return object, err
	}
	if rangeOf(resp) != nil {
		return nil, fmt.Errorf("%s %s: %w", c.resource.Prefix, key, ErrExists)
	}
	return nil, c.guardFailed(ctx, key, resp)
}

// Update changes an object as fn says. It begins with the object in the cache; whatever fn makes of that is only
// believed if nobody has changed the object since. It returns the object as it is then, the present one if there was
// nothing to write. Errors: ErrNotFound, ErrGuard, ErrTooLarge, and those of fn.
func (c *Cache) Update(ctx context.Context, namespace, name string, fn UpdateFunc) (*Object, error) {
	key, err := c.writeKey(namespace, name)
	if err != nil {
		return nil, err
	}
	return c.modify(ctx, key, func(cur *Object) (*Object, *clientv3.TxnResponse, error) {
		before, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		obj, ops, err := fn(cur)
		if err != nil {
			return nil, nil, err
		}
		value := cur.value
		if obj != before {
			if value, err = c.encode(key, obj); err != nil {
				return nil, nil, err
			}
		}
		if bytes.Equal(value, cur.value) {
			if len(ops) == 0 {
				return nil, nil, nil
			}
			resp, err := c.commit(ctx, "update", key, cur.Rev, nil, ops)
			if err != nil || !resp.Succeeded {
				return nil, resp, err
			}
			return cur, resp, nil
		}
		return c.put(ctx, key, cur.Rev, value, obj, ops)
	})
}

// Delete deletes an object if fn has nothing against it, and returns its last state with the revision of the deletion.
// Errors: ErrNotFound, ErrGuard, and those of fn.
func (c *Cache) Delete(ctx context.Context, namespace, name string, fn DeleteFunc) (*Object, error) {
	key, err := c.writeKey(namespace, name)
	if err != nil {
		return nil, err
	}
	return c.modify(ctx, key, func(cur *Object) (*Object, *clientv3.TxnResponse, error) {
		var ops []Op
		if fn != nil {
			var err error
			if ops, err = fn(cur); err != nil {
				return nil, nil, err
			}
		}
		del := clientv3.OpDelete(c.prefix + key)
		resp, err := c.commit(ctx, "delete", key, cur.Rev, &del, ops)
		if err != nil || !resp.Succeeded {
			return nil, resp, err
		}
		return cur.at(resp.Header.Revision), resp, nil
	})
}

// modify tries a change until it is made on the present state of the object. try returns the outcome; or, without one,
// the answer of a transaction that was refused; or neither, when nothing is to be done. That, and an error, are only
// believed if the object is the present one.
func (c *Cache) modify(ctx context.Context, key string, try func(*Object) (*Object, *clientv3.TxnResponse, error)) (*Object, error) {
	namespace, name := "", key
	if c.resource.Namespaced {
		namespace, name = splitKey(key)
	}
	cur, err := c.Get(ctx, namespace, name, 0)
	fresh := false
	for guards := 0; ; {
		var out *Object
		var resp *clientv3.TxnResponse
		if err == nil {
			if out, resp, err = try(cur); err == nil && out != nil {
				return out, nil
			}
		}
		switch {
		case resp != nil && err == nil: // refused
			now := rangeOf(resp)
			if now == nil {
				return nil, fmt.Errorf("%s %s: %w", c.resource.Prefix, key, ErrNotFound)
			}
			if now.ModRevision == cur.Rev {
				err := c.guardFailed(ctx, key, resp)
				if guards++; guards == guardTries || !errors.Is(err, ErrGuard) {
					return nil, err
				}
			} else {
				cur = newObject(c, key, now.Value, now.ModRevision)
			}
			fresh = true
		case fresh || resp != nil:
			if err != nil {
				return nil, err
			}
			return cur, nil
		default: // an outcome that depends on the cache being up to date
			now, getErr := c.Get(ctx, namespace, name, -1)
			if getErr == nil && cur != nil && now.Rev == cur.Rev {
				if err != nil {
					return nil, err
				}
				return cur, nil
			}
			if getErr != nil {
				return nil, getErr
			}
			cur, err, fresh = now, nil, true
		}
	}
}

func (c *Cache) writeKey(namespace, name string) (string, error) {
	key := c.key(namespace, name)
	parts := 1
	if c.resource.Namespaced {
		parts = 2
	}
	if name == "" || c.resource.Namespaced && namespace == "" || strings.Count(key, "/") != parts-1 {
		return "", fmt.Errorf("writing %s: namespace %q and name %q make no key", c.resource.Prefix, namespace, name)
	}
	return key, nil
}

func (c *Cache) encode(key string, obj runtime.Object) ([]byte, error) {
	if err := setRevision(obj, 0); err != nil {
		return nil, fmt.Errorf("encoding %s%s: %w", c.prefix, key, err)
	}
	value, err := c.resource.Encode(obj)
	if err != nil {
		return nil, fmt.Errorf("encoding %s%s: %w", c.prefix, key, err)
	}
	if cap(value)-len(value) > len(value)/8 { // it is held for long
		value = bytes.Clone(value)
	}
	return value, nil
}

// put writes an encoded object if the key is at rev, and hands it over to the feed. It returns no object, but etcd's
// answer, if the transaction was refused.
func (c *Cache) put(ctx context.Context, key string, rev int64, value []byte, obj runtime.Object, ops []Op) (*Object, *clientv3.TxnResponse, error) {
	operation := "update"
	if rev == 0 {
		operation = "create"
	}
	h := &handover{cache: c, key: key, value: value, obj: obj}
	c.pending.add(h)
	resp, err := c.commitPut(ctx, operation, key, rev, value, ops)
	if err != nil || !resp.Succeeded {
		c.pending.remove(h)
		return nil, resp, err
	}
	return c.pending.done(h, resp.Header.Revision), resp, nil
}

func (c *Cache) commitPut(ctx context.Context, operation, key string, rev int64, value []byte, ops []Op) (*clientv3.TxnResponse, error) {
	ttl := c.resource.TTL
	if ttl == 0 {
		put := clientv3.OpPut(c.prefix+key, bytesAsString(value))
		return c.commit(ctx, operation, key, rev, &put, ops)
	}
	for again := false; ; again = true {
		lease, err := c.store.leases.get(ctx, ttl)
		if err != nil {
			return nil, fmt.Errorf("writing %s%s: %w", c.prefix, key, err)
		}
		put := clientv3.OpPut(c.prefix+key, bytesAsString(value), clientv3.WithLease(lease))
		resp, err := c.commit(ctx, operation, key, rev, &put, ops)
		if again || !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return resp, err
		}
		c.store.leases.forget(ttl, lease) // revoked by somebody else
	}
}

// bytesAsString spares a copy: the client copies what it is given anyway, and value is never changed.
func bytesAsString(value []byte) string { return unsafe.String(unsafe.SliceData(value), len(value)) }

// commit runs the transaction: op (nil: none) and ops, if the key is at rev (0: not there) and all guards hold.
// Otherwise the answer holds the key's present state.
func (c *Cache) commit(ctx context.Context, operation, key string, rev int64, op *clientv3.Op, ops []Op) (*clientv3.TxnResponse, error) {
	full := c.prefix + key
	conditions := make([]clientv3.Cmp, 0, 1+len(ops))
	conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(full), "=", rev))
	writes := make([]clientv3.Op, 0, 1+len(ops))
	if op != nil {
		writes = append(writes, *op)
	}
	for _, o := range ops {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(o.Key), "=", o.ModRevision))
		if o.Value == nil {
			writes = append(writes, clientv3.OpDelete(o.Key))
		} else {
			writes = append(writes, clientv3.OpPut(o.Key, bytesAsString(o.Value)))
		}
	}
	began := time.Now()
	resp, err := c.store.client.Txn(ctx).If(conditions...).Then(writes...).Else(clientv3.OpGet(full)).Commit()
	c.store.metrics.observe(operation, c.measured(), began, err)
	if err != nil {
		if errors.Is(err, rpctypes.ErrRequestTooLarge) {
			err = fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		return nil, fmt.Errorf("writing %s: %w", full, err)
	}
	return resp, nil
}

// rangeOf returns the key's present state out of the answer of a refused transaction; nil if there is none.
func rangeOf(resp *clientv3.TxnResponse) *mvccpb.KeyValue {
	for _, r := range resp.Responses {
		if rr, ok := r.Response.(*pb.ResponseOp_ResponseRange); ok && len(rr.ResponseRange.Kvs) > 0 {
			return rr.ResponseRange.Kvs[0]
		}
	}
	return nil
}

// guardFailed waits until the caches have seen what made a guard fail, so that the next computation does, and returns
// ErrGuard.
func (c *Cache) guardFailed(ctx context.Context, key string, resp *clientv3.TxnResponse) error {
	if err := c.store.waitFed(ctx, resp.Header.Revision, lagTimeout); err != nil {
		return err
	}
	return fmt.Errorf("writing %s%s: %w", c.prefix, key, ErrGuard)
}
