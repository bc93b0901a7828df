#!/nix/store/…-bash-5.3p9/bin/bash
exec /nix/store/…-narwharf/bin/narwharf token declare - --config /nix/store/…-narwharf-pr.toml --dir /var/lib/narwharf-pr/tokens.d <<'EOF'
{"ci":{"scopes":["push"]}}
EOF

