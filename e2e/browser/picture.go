package browser

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
)

// Small is a PNG with a palette of at most 256 colours in place of another one: the mean of those
// that are alike. Pictures of a page lose nothing that anybody sees, and most of their size.
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

// palette puts colours together whose upper bits are alike, of as many bits as there is room for.
func palette(count map[color.NRGBA]int) (of map[color.NRGBA]uint8, colours color.Palette) {
	for bits := 8; ; bits-- {
		type group struct{ r, g, b, n, most int }
		groups := map[color.NRGBA]*group{}
		key := func(c color.NRGBA) color.NRGBA {
			drop := 8 - bits
			return color.NRGBA{c.R >> drop, c.G >> drop, c.B >> drop, 255}
		}
		first := map[color.NRGBA]color.NRGBA{} // the colour of a group that is there most
		for c, n := range count {
			g := groups[key(c)]
			if g == nil {
				g = &group{}
				groups[key(c)] = g
			}
			g.r, g.g, g.b, g.n = g.r+n*int(c.R), g.g+n*int(c.G), g.b+n*int(c.B), g.n+n
			if n > g.most {
				g.most, first[key(c)] = n, c
			}
		}
		if len(groups) > 256 {
			continue
		}
		of = map[color.NRGBA]uint8{}
		index := map[color.NRGBA]uint8{}
		for k, g := range groups {
			c := color.NRGBA{uint8(g.r / g.n), uint8(g.g / g.n), uint8(g.b / g.n), 255}
			if g.most*2 > g.n {
				c = first[k] // of an area, and not of the edge of a letter
			}
			index[k] = uint8(len(colours))
			colours = append(colours, c)
		}
		for c := range count {
			of[c] = index[key(c)]
		}
		return of, colours
	}
}
