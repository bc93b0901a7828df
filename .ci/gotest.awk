# Reads `go test -v` of many packages; see gotest.

/^=== (RUN|NAME|CONT|PAUSE) / { current = $3; next }
/^ *--- (PASS|SKIP|FAIL): / {
  state = substr($2, 1, 4)
  count[state]++
  ended[$3] = state
  if (state == "SKIP") names[++n] = $3
  if (state == "FAIL") { text[++lines] = $0; owner[lines] = "" }
  next
}
/^(PASS|FAIL)$/ { current = "TestMain"; next } # what comes now is TestMain's

# The end of a package.
/^(ok|FAIL|\?) *\t/ || /^\t.*coverage: / {
  for (i = 1; i <= n; i++) skips[++total] = "  " $2 " " names[i] ": " said[names[i]]
  if ($1 == "FAIL") { broken++; show() }
  else for (i = 1; i <= lines; i++) if (owner[i] == "TestMain") print text[i]
  if ($1 == "FAIL" || $1 == "ok") print
  fflush()
  n = lines = 0
  current = ""
  split("", said)
  split("", ended)
  next
}

{
  text[++lines] = $0
  owner[lines] = current
  # The last line that a test writes before it is skipped is the reason.
  if ($1 ~ /\.go:[0-9]+:$/ && $1 !~ /^testscript/) { said[current] = $0; sub(/^ +/, "", said[current]) }
}

# What belongs to no test that ended well.
function show(  i) {
  for (i = 1; i <= lines; i++) if (ended[owner[i]] !~ /PASS|SKIP/) print text[i]
}

END {
  show()
  if (total > 0 && ENVIRON["LIST_SKIPPED"] != "no") {
    print "\nskipped:"
    for (i = 1; i <= total; i++) print skips[i]
    print ""
  }
  failed = count["FAIL"] > broken ? count["FAIL"] : broken + 0
  printf "%d passed, %d failed, %d skipped\n", count["PASS"], failed, count["SKIP"]
  exit failed > 0
}
