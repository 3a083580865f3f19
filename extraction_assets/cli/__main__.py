from extraction_assets.cli import main

main()
