package state

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// GetJSON reads a value that PutJSON wrote, nil where there is none.
func GetJSON[T any](tx Reader, bucket, key string) (*T, error) {
	value, err := tx.Get(bucket, key)
	if err != nil || value == nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("%s %q: %w", bucket, key, err)
	}
	return v, nil
}

// PutJSON writes a value as JSON.
func PutJSON(tx Tx, bucket, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s %q: %w", bucket, key, err)
	}
	return tx.Put(bucket, key, value)
}

// Uint64Key is n as a key, 8 bytes, big endian: it sorts as n counts.
func Uint64Key(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// Uint64 reads what Uint64Key or Merge wrote, 0 for anything else.
func Uint64[T string | []byte](b T) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(b))
}
