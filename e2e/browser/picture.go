package browser

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"maps"
	"slices"
)

// Small is a PNG with a palette of at most 256 colours in place of another one: the colours that are
// there most as they are, and of the others the mean of those that are alike. Pictures of a page lose
// nothing that anybody sees, and most of their size.
func Small(picture []byte) ([]byte, error) {
	from, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	box := from.Bounds()
	count := map[color.NRGBA]int{}
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			count[at(from, x, y)]++
		}
	}
	of, palette := palette(count)
	to := image.NewPaletted(box, palette)
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			to.SetColorIndex(x, y, of[at(from, x, y)])
		}
	}
	var text bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&text, to)
	return text.Bytes(), err
}

func at(p image.Image, x, y int) color.NRGBA {
	return color.NRGBAModel.Convert(p.At(x, y)).(color.NRGBA)
}

// exact is how many colours stay as they are.
const exact = 128

// palette chooses colours, and says which stands for each.
func palette(count map[color.NRGBA]int) (of map[color.NRGBA]uint8, colours color.Palette) {
	of = map[color.NRGBA]uint8{}
	all := slices.SortedFunc(maps.Keys(count), func(a, b color.NRGBA) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	most := all[:min(exact, len(all))]
	for _, c := range most {
		of[c] = uint8(len(colours))
		colours = append(colours, c)
	}
	rest, groups := all[len(most):], map[color.NRGBA][]color.NRGBA{}
	for bits := 8; bits == 8 || len(colours)+len(groups) > 256; bits-- {
		clear(groups)
		for _, c := range rest {
			key := color.NRGBA{c.R >> (8 - bits), c.G >> (8 - bits), c.B >> (8 - bits), 255}
			groups[key] = append(groups[key], c)
		}
	}
	for _, c := range rest { // in order, so that a picture comes out the same each time
		if _, done := of[c]; done {
			continue
		}
		for _, group := range groups {
			if slices.Contains(group, c) {
				for _, one := range group {
					of[one] = uint8(len(colours))
				}
				colours = append(colours, mean(group, count))
				break
			}
		}
	}
	return of, colours
}

// mean of colours, of which each counts as often as it is there.
func mean(group []color.NRGBA, count map[color.NRGBA]int) color.NRGBA {
	var r, g, b, n int
	for _, c := range group {
		r, g, b, n = r+count[c]*int(c.R), g+count[c]*int(c.G), b+count[c]*int(c.B), n+count[c]
	}
	return color.NRGBA{uint8(r / n), uint8(g / n), uint8(b / n), 255}
}
