"Run the demo: `python -m fastai_discrim`"
if __name__ == '__main__':
    from .demo.ulmfit_demo import main
    main()
