# Reads `go test -v` of many packages; see gotest.

/^=== (RUN|NAME|CONT|PAUSE) / { current = $3; next }
/^ *--- PASS: / { passed++; next }
/^ *--- FAIL: / { failed++ }
/^ *--- SKIP: / { skipped++; names[++n] = $3; next }
/^(PASS|FAIL)$/ { next }

# The end of a package.
/^(ok|FAIL|\?) *\t/ || /^\t.*coverage: / {
  for (i = 1; i <= n; i++) skips[++total] = "  " $2 " " names[i] ": " said[names[i]]
  if ($1 == "FAIL") {
    broken++
    for (i = 1; i <= lines; i++) print text[i]
  }
  if ($1 == "FAIL" || $1 == "ok") print
  fflush()
  n = lines = 0
  split("", said)
  next
}

{
  text[++lines] = $0
  # The last line that a test writes before it is skipped is the reason.
  if ($1 ~ /\.go:[0-9]+:$/) { said[current] = $0; sub(/^ +/, "", said[current]) }
}

END {
  for (i = 1; i <= lines; i++) print text[i]
  if (total > 0) {
    print "\nskipped:"
    for (i = 1; i <= total; i++) print skips[i]
    print ""
  }
  if (broken > failed) failed = broken
  printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
  exit failed > 0
}
