package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
	"unique"

	"google.golang.org/protobuf/encoding/protowire"
)

// labelList are the labels of one object. Keys and values are interned: most objects of a resource have the same ones,
// and comparing them then touches no memory of the object.
type labelList []label

type label struct {
	key, value unique.Handle[string]
}

// Has, Get and Lookup make it a labels.Labels. They are the pointer's, since a slice in an interface is an allocation.
func (l *labelList) Has(key string) bool {
	_, ok := l.Lookup(key)
	return ok
}

// Get returns the label's value, or "".
func (l *labelList) Get(key string) string {
	v, _ := l.Lookup(key)
	return v
}

// Lookup returns the label's value, and whether there is such a label.
func (l *labelList) Lookup(key string) (string, bool) {
	for i := range *l {
		if x := &(*l)[i]; x.key.Value() == key {
			return x.value.Value(), true
		}
	}
	return "", false
}

// contains says whether a label is there with that value. It compares no strings.
func (l labelList) contains(want label) bool {
	for i := range l {
		if l[i].key == want.key {
			return l[i].value == want.value
		}
	}
	return false
}

var errMalformed = errors.New("stored object is malformed")

var protobufPrefix = []byte("k8s\x00")

// readLabels reads metadata.labels out of a stored value without decoding the rest.
func readLabels(value []byte) (labelList, error) {
	if raw, ok := bytes.CutPrefix(value, protobufPrefix); ok {
		return protobufLabels(raw)
	}
	return jsonLabels(value)
}

// Field numbers of runtime.Unknown, of every kind's message, of ObjectMeta and of a map's entries.
const (
	unknownRaw     protowire.Number = 2
	objectMetadata protowire.Number = 1
	metadataLabels protowire.Number = 11
	entryKey       protowire.Number = 1
	entryValue     protowire.Number = 2
)

func protobufLabels(unknown []byte) (labelList, error) {
	var list labelList
	err := eachBytes(unknown, unknownRaw, func(object []byte) error {
		return eachBytes(object, objectMetadata, func(meta []byte) error {
			return eachBytes(meta, metadataLabels, func(entry []byte) error {
				var key, value []byte
				err := eachBytes(entry, entryKey, func(b []byte) error { key = b; return nil })
				if err == nil {
					err = eachBytes(entry, entryValue, func(b []byte) error { value = b; return nil })
				}
				list = list.with(string(key), string(value))
				return err
			})
		})
	})
	return list, err
}

// with adds a label; as in protobuf and JSON, the last of several with one key holds.
func (l labelList) with(key, value string) labelList {
	v := unique.Make(value)
	for i := range l {
		if l[i].key.Value() == key {
			l[i].value = v
			return l
		}
	}
	return append(l, label{unique.Make(key), v})
}

// eachBytes calls fn with every length-delimited field of that number in a message.
func eachBytes(msg []byte, want protowire.Number, fn func([]byte) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return errMalformed
		}
		msg = msg[n:]
		if num == want && typ == protowire.BytesType {
			b, n := protowire.ConsumeBytes(msg)
			if n < 0 {
				return errMalformed
			}
			if err := fn(b); err != nil {
				return err
			}
			msg = msg[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, msg); n < 0 {
			return errMalformed
		}
		msg = msg[n:]
	}
	return nil
}

// jsonLabels finds metadata.labels in a JSON object. It relies on what was stored being valid, and only ever skips what
// it does not look for.
func jsonLabels(data []byte) (labelList, error) {
	var list labelList
	_, err := eachMember(data, 0, func(key string, i int) (int, error) {
		if key != "metadata" {
			return skipJSON(data, i)
		}
		return eachMember(data, i, func(key string, i int) (int, error) {
			if key != "labels" || data[i] != '{' {
				return skipJSON(data, i)
			}
			return eachMember(data, i, func(key string, i int) (int, error) {
				end, err := skipJSON(data, i)
				if err != nil {
					return 0, err
				}
				value, err := jsonString(data[i:end])
				if err != nil {
					return 0, err
				}
				list = list.with(key, value)
				return end, nil
			})
		})
	})
	return list, err
}

// eachMember calls fn with every key of the object at data[i:] and the place of its value; fn returns the place after
// the value. eachMember returns the place after the object.
func eachMember(data []byte, i int, fn func(key string, i int) (int, error)) (int, error) {
	i = skipSpace(data, i)
	if i >= len(data) || data[i] != '{' {
		return 0, errMalformed
	}
	i = skipSpace(data, i+1)
	if i < len(data) && data[i] == '}' {
		return i + 1, nil
	}
	for i < len(data) {
		end, err := skipJSON(data, i)
		if err != nil {
			return 0, err
		}
		key, err := jsonString(data[i:end])
		if err != nil {
			return 0, err
		}
		i = skipSpace(data, end)
		if i >= len(data) || data[i] != ':' {
			return 0, errMalformed
		}
		if i = skipSpace(data, i+1); i >= len(data) {
			return 0, errMalformed
		}
		if i, err = fn(key, i); err != nil {
			return 0, err
		}
		i = skipSpace(data, i)
		if i >= len(data) {
			return 0, errMalformed
		}
		if data[i] == '}' {
			return i + 1, nil
		}
		if data[i] != ',' {
			return 0, errMalformed
		}
		i = skipSpace(data, i+1)
	}
	return 0, errMalformed
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

// skipJSON returns the place after the value that starts at data[i].
func skipJSON(data []byte, i int) (int, error) {
	depth := 0
	for i < len(data) {
		switch c := data[i]; c {
		case '"':
			for i++; ; i++ {
				if i >= len(data) {
					return 0, errMalformed
				}
				if data[i] == '\\' {
					i++
				} else if data[i] == '"' {
					break
				}
			}
			i++
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			if depth == 0 {
				return 0, errMalformed
			}
			depth--
			i++
		case ',', ':', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return 0, errMalformed
			}
			i++
			continue
		default: // a number, true, false, null
			for i < len(data) && !bytes.ContainsRune([]byte(",:}] \n\t\r"), rune(data[i])) {
				i++
			}
		}
		if depth == 0 {
			return i, nil
		}
	}
	return 0, errMalformed
}

// jsonString decodes a JSON string. Those without escapes, nearly all, are copied as they are.
func jsonString(b []byte) (string, error) {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return "", errMalformed
	}
	if inner := b[1 : len(b)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner), nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return "", errMalformed
	}
	return s, nil
}
