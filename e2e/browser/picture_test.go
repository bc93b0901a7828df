package browser

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"testing"
)

// A picture with more colours than fit keeps its areas as they are, and no pixel is far from what it was.
func TestSmall(t *testing.T) {
	from := image.NewNRGBA(image.Rect(0, 0, 300, 200))
	for y := range 200 {
		for x := range 300 {
			c := color.NRGBA{14, 17, 22, 255}
			if y > 100 {
				c = color.NRGBA{uint8(x * 255 / 299), uint8(y), uint8(x ^ y), 255}
			}
			from.SetNRGBA(x, y, c)
		}
	}
	var text bytes.Buffer
	if err := png.Encode(&text, from); err != nil {
		t.Fatal(err)
	}
	small, err := Small(text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := png.Decode(bytes.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.(*image.Paletted); !ok || got.Bounds() != from.Bounds() {
		t.Errorf("it is a %T of %s", got, got.Bounds())
	}
	if at(got, 5, 5) != at(from, 5, 5) {
		t.Errorf("an area of %v is %v", at(from, 5, 5), at(got, 5, 5))
	}
	far := func(a, b uint8) int { return max(int(a)-int(b), int(b)-int(a)) }
	for y := range 200 {
		for x := range 300 {
			if a, b := at(from, x, y), at(got, x, y); far(a.R, b.R) > 64 || far(a.G, b.G) > 64 || far(a.B, b.B) > 64 {
				t.Fatalf("%d, %d: %v is %v", x, y, a, b)
			}
		}
	}
}
