package narinfo

// Closure is what get knows of root and of all that it refers to. What get has nil
// for is left out.
func Closure(root Path, get func(Path) (*Info, error)) ([]*Info, error) {
	var infos []*Info
	seen := map[Path]bool{root: true}
	for todo := []Path{root}; len(todo) > 0; {
		info, err := get(todo[len(todo)-1])
		if err != nil {
			return nil, err
		}
		todo = todo[:len(todo)-1]
		if info == nil {
			continue
		}
		infos = append(infos, info)
		for _, ref := range info.References {
			if !seen[ref] {
				seen[ref] = true
				todo = append(todo, ref)
			}
		}
	}
	return infos, nil
}
