package clip

import (
	"reflect"
	"strconv"
)

// Strings makes every string in a value that v points to a Line of at most most bytes:
// what was read from a document of others. Bytes stay as they are.
func Strings(v any, most int) { lines(reflect.ValueOf(v), most) }

// lines goes through a value, and returns what stands for it where it cannot be set.
func lines(v reflect.Value, most int) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		if line := Line(v.String(), most); line != v.String() {
			if !v.CanSet() {
				return reflect.ValueOf(line).Convert(v.Type())
			}
			v.SetString(line)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			lines(v.Elem(), most)
		}
	case reflect.Interface:
		if !v.IsNil() && v.CanSet() {
			v.Set(lines(v.Elem(), most))
		}
	case reflect.Slice, reflect.Array:
		for i := 0; i < v.Len() && v.Type().Elem().Kind() != reflect.Uint8; i++ {
			lines(v.Index(i), most)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			is, value := lines(key, most), reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(key))
			lines(value, most)
			v.SetMapIndex(key, reflect.Value{})
			v.SetMapIndex(is, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				lines(f, most)
			}
		}
	}
	return v
}

// Count says how many there are of something: "1 path", "2 paths".
func Count[N ~int | ~int64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatInt(int64(n), 10) + " " + one + "s"
}
