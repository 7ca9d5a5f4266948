"Run the demo: `python -m fastai_discrim`"
if __name__ == '__main__':
    from .demo.command import main
    main()
