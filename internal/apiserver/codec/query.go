package codec

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DecodeQuery reads the parameters of a query into the fields of an options type (PodExecOptions, PodLogOptions), by their
// JSON names, as upstream's conversions do: a boolean is false only when it is absent, "false" or "0".
func DecodeQuery(q url.Values, options runtime.Object) error {
	v := reflect.ValueOf(options).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		texts, ok := q[name]
		if name == "" || !ok || len(texts) == 0 {
			continue
		}
		if err := setField(v.Field(i), texts); err != nil {
			return fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return nil
}

func setField(f reflect.Value, texts []string) error {
	if t, ok := f.Addr().Interface().(**metav1.Time); ok {
		at, err := time.Parse(time.RFC3339, texts[0])
		if err != nil {
			return err
		}
		*t = &metav1.Time{Time: at}
		return nil
	}
	switch f.Kind() {
	case reflect.Pointer:
		value := reflect.New(f.Type().Elem())
		if err := setField(value.Elem(), texts); err != nil {
			return err
		}
		f.Set(value)
	case reflect.Slice:
		list := reflect.MakeSlice(f.Type(), len(texts), len(texts))
		for i, text := range texts {
			if err := setField(list.Index(i), []string{text}); err != nil {
				return err
			}
		}
		f.Set(list)
	case reflect.String:
		f.SetString(texts[0])
	case reflect.Bool:
		var value bool
		if err := runtime.Convert_Slice_string_To_bool(&texts, &value, nil); err != nil {
			return err
		}
		f.SetBool(value)
	case reflect.Int32, reflect.Int64:
		value, err := strconv.ParseInt(texts[0], 10, f.Type().Bits())
		if err != nil {
			return err
		}
		f.SetInt(value)
	default:
		return fmt.Errorf("a field of type %s can't be a parameter", f.Type())
	}
	return nil
}
