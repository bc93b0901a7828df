package refusal

import "fmt"

// Size prints a number of bytes for people.
func Size(n int64) string {
	for _, u := range []string{"bytes", "KiB", "MiB", "GiB"} {
		if n < 10<<10 {
			return fmt.Sprintf("%d %s", n, u)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d TiB", n)
}
